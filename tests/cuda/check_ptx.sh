#!/bin/sh
# Every product and attention kernel of a PTX file multiplies on tensor cores: with mma.sync and ldmatrix, those named Wgmma with wgmma where
# the PTX is for sm_90a (elsewhere they are empty). None has an atomic. sh check_ptx.sh FILE
awk '
  /^\.target sm_90a/ { has_wgmma = 1 }
  /\.entry/ { name = $0; sub(/.*\.entry */, "", name); sub(/\(.*/, "", name); names[name] = 1 }
  /mma\.sync/ { ++mma[name] }
  /wgmma\.mma_async/ { ++wgmma[name] }
  /fence\.proxy\.async/ { ++fences[name] }
  /ldmatrix/ { ++matrices[name] }
  /(^|[ \t])(atom|red)\./ { ++atomics }
  END {
    for (name in names) {
      if (name ~ /ProductWgmma/) {
        ++warpgroup
        if (has_wgmma && (!wgmma[name] || !fences[name])) { print name " has " wgmma[name] + 0 " wgmma and " fences[name] + 0 " fences"; ++wrong }
      }
      if (name ~ /ProductFew/ && ++few && !mma[name]) { print name " has no mma.sync"; ++wrong }
      if (name !~ /ProductMany|OuterProduct|AttentionForward|AttentionBackward/) continue
      ++kernels
      if (!mma[name] || !matrices[name]) { print name " has " mma[name] + 0 " mma.sync and " matrices[name] + 0 " ldmatrix"; ++wrong }
    }
    print kernels + 0 " kernels with mma.sync and " few + 0 " for few tokens, " warpgroup + 0 " for wgmma" (has_wgmma ? "" : ", empty here") ", " wrong + 0 \
          " without tensor cores, " atomics + 0 " atomics"
    exit kernels < 22 || few < 9 || warpgroup < 12 || wrong > 0 || atomics > 0
  }' "$1"
