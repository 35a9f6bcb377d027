# Functions of run.sh, examples/run.sh and .ci/run; read with `.` from a POSIX shell.

has_command() { command -v "$1" > /dev/null 2>&1; }
has_header() { printf '#include <%s>\n' "$1" | c++ -std=c++20 -DPCRE2_CODE_UNIT_WIDTH=8 -I/usr/include/eigen3 -x c++ -E - > /dev/null 2>&1; }

# need PACKAGE TEST…: remembers the Debian package unless the test holds. missing lists them.
missing=
need() {
  need_package=$1 && shift
  "$@" || missing="$missing $need_package"
}

# install_missing: with apt where it is (as root, or with sudo); elsewhere names the packages.
install_missing() {
  [ -n "$missing" ] || return 0
  if ! has_command apt-get; then
    echo "needed, by their Debian names:$missing" >&2  # they may be where only CMake finds them, so go on
    return 0
  fi
  if [ "$(id -u)" = 0 ]; then as_root=; elif has_command sudo; then as_root=sudo; else
    echo "Some packages are missing. As root: apt-get install$missing" >&2
    exit 1
  fi
  phase "installing$missing" install_with_apt
  missing=
}
install_with_apt() {
  $as_root apt-get update && $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
}

need_compiler() {
  need g++ has_command c++
  need cmake has_command cmake
  need ninja-build has_command ninja  # begins what depends on a library before that is complete; make does not
  export CMAKE_GENERATOR=Ninja       # of folders that are new
  need pkg-config has_command pkg-config
  need libeigen3-dev has_header Eigen/Core
  need nlohmann-json3-dev has_header nlohmann/json.hpp
}

# phase TEXT COMMAND…: one line; what the command prints shows up only when it fails.
phase() {
  phase_text=$1 && shift
  printf '%s … ' "$phase_text" >&2
  phase_log=$(mktemp)
  phase_start=$(date +%s)
  if "$@" > "$phase_log" 2>&1; then
    echo "$(($(date +%s) - phase_start)) s" >&2
    rm -f "$phase_log"
  else
    echo "failed" >&2
    cat "$phase_log" >&2
    rm -f "$phase_log"
    exit 1
  fi
}

# jobs: processors, but a compiler needs 1.5 GiB.
jobs() {
  awk -v cores="$(getconf _NPROCESSORS_ONLN)" '
    /^MemAvailable/ { fit = int($2 / 1572864) }
    END { print fit < 1 ? 1 : fit < cores ? fit : cores }' /proc/meminfo 2>/dev/null || echo 1
}
