#!/bin/sh
# Every product and attention kernel of a PTX file multiplies on tensor cores and loads its factors with ldmatrix; none has an atomic. sh check_ptx.sh FILE
awk '
  /\.entry/ { name = $0; sub(/.*\.entry */, "", name); sub(/\(.*/, "", name); names[name] = 1 }
  /mma\.sync/ { ++mma[name] }
  /ldmatrix/ { ++matrices[name] }
  /(^|[ \t])(atom|red)\./ { ++atomics }
  END {
    for (name in names) {
      if (name !~ /ProductMany|OuterProduct|AttentionForward|AttentionBackward/) continue
      ++kernels
      if (!mma[name] || !matrices[name]) { print name " has " mma[name] + 0 " mma.sync and " matrices[name] + 0 " ldmatrix"; ++wrong }
    }
    print kernels + 0 " kernels with products, " wrong + 0 " without tensor cores, " atomics + 0 " atomics"
    exit kernels < 20 || wrong > 0 || atomics > 0
  }' "$1"
