#!/bin/sh
# Each architecture's machine code has tensor-core products in the product and attention kernels: HMMA, and HGMMA in those named Wgmma where
# the architecture is sm_90a; asynchronous copies in the products, and no atomic on floats. sh check_sass.sh CUOBJDUMP PROGRAM ARCHITECTURE…
tool=$1 program=$2
shift 2
if ! [ -x "$tool" ] || ! "$tool" --dump-sass -arch "$1" "$program" >/dev/null; then
  echo "skipped: no cuobjdump with its nvdisasm (CUDA Toolkit, or pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm)"
  exit 77
fi
wrong=0
for architecture; do
  "$tool" --dump-sass -arch "$architecture" "$program" | awk -v architecture="$architecture" '
    /Function :/ { name = $3; names[name] = 1 }
    /HMMA/ { ++mma[name]; ++total }
    /HGMMA/ { ++wgmma[name]; ++warpgroup }
    /LDGSTS/ { ++copies[name] }
    /(ATOM|RED)[A-Z]*\.[A-Z.]*F(16|32|64|P)/ { print name " has an atomic on floats"; ++wrong }
    END {
      for (name in names) {
        if (name ~ /ProductWgmma/ && architecture == "sm_90a" && (!wgmma[name] || !copies[name])) {
          print name " has " wgmma[name] + 0 " HGMMA and " copies[name] + 0 " asynchronous copies"
          ++wrong
        }
        if (name !~ /ProductMany|OuterProduct|AttentionForward|AttentionBackward/) continue
        ++kernels
        if (!mma[name]) { print name " has no tensor-core product"; ++wrong }
        if (name ~ /Product/ && !copies[name]) { print name " has no asynchronous copy"; ++wrong }
      }
      print architecture ": " kernels + 0 " kernels with products, " total + 0 " HMMA and " warpgroup + 0 " HGMMA instructions, " wrong + 0 " faults"
      exit kernels == 0 || wrong > 0 || (architecture == "sm_90a" && warpgroup == 0)
    }' || wrong=1
done
exit $wrong
