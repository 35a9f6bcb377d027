#!/bin/sh
# Builds the documentation's site, with the reference of all headers, and checks its links: sh docs/build.sh [OUTDIR]
# (default build-docs/site). On Debian and Ubuntu it installs what is missing. The site fetches nothing from elsewhere.
set -eu
out=${1:-build-docs/site}
case $out in /*) ;; *) out=$PWD/$out ;; esac
cd "$(dirname "$0")/.."
. tests/support/shell.sh

need mkdocs has_command mkdocs
need doxygen has_command doxygen
need python3 has_command python3
need python3-pygments has_command pygmentize
install_missing

stage=$(mktemp -d) && trap 'rm -rf "$stage"' EXIT
reference() {
  { cat docs/site/Doxyfile && echo "OUTPUT_DIRECTORY = $stage" && echo "WARN_AS_ERROR = FAIL_ON_WARNINGS"; } | doxygen - &&
    python3 docs/site/reference.py --strict . "$stage/xml" "$stage/pages/reference"
}
# The playground (WebAssembly) where emscripten is; elsewhere its page says how to get it.
has_playground() { [ -e docs/playground/build.sh ] && has_command em++; }
playground_page() {
  echo "# Playground"
  echo
  if has_playground; then
    echo 'The library in your browser, compiled to WebAssembly: <a href="playground/index.html">open the playground</a>.'
  else
    echo "The library in a browser, compiled to WebAssembly. It is not part of this copy: building it takes emscripten"
    echo '(`sh docs/playground/build.sh playground`).'
  fi
}
pages() {
  cp docs/site/mkdocs.yml "$stage" && python3 docs/site/stage.py . "$stage/pages" && cp docs/site/style.css "$stage/pages" &&
    pygmentize -S xcode -f html -a .code >> "$stage/pages/style.css" && playground_page > "$stage/pages/playground.md"
}
phase "writing the pages" pages
phase "writing the reference" reference
phase "building the site" mkdocs build --strict --quiet --config-file "$stage/mkdocs.yml" --site-dir "$out"
if has_playground; then phase "building the playground" sh docs/playground/build.sh "$out/playground" .html; fi
phase "checking its links" python3 docs/site/check_links.py "$out"
echo "$out/index.html"
