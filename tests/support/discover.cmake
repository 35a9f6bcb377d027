# Writes the CTest tests of a doctest executable, one a case: cmake -DEXECUTABLE=… -DNAME=… -DLABELS=… -DSCRIPT=… -P discover.cmake
# (doctest's own script cuts a name at a semicolon, and then runs no case at all.)
execute_process(COMMAND ${EXECUTABLE} --list-test-cases --no-colors=true OUTPUT_VARIABLE output COMMAND_ERROR_IS_FATAL ANY)
string(ASCII 1 semicolon)
string(ASCII 2 open)
string(ASCII 3 close)
string(REPLACE ";" "${semicolon}" output "${output}")  # what a CMake list would take apart
string(REPLACE "[" "${open}" output "${output}")
string(REPLACE "]" "${close}" output "${output}")
string(REPLACE "\n" ";" lines "${output}")

set(script "")
foreach(line IN LISTS lines)
  if(line STREQUAL "" OR line MATCHES "^(${open}doctest${close}|====)")
    continue()
  endif()
  string(REPLACE "${semicolon}" ";" line "${line}")
  string(REPLACE "${open}" "[" line "${line}")
  string(REPLACE "${close}" "]" line "${line}")
  string(REPLACE "," "\\," filter "${line}")  # a comma separates filters
  string(APPEND script "add_test([==[${NAME}: ${line}]==] [==[${EXECUTABLE}]==] [==[--test-case=${filter}]==])\n"
                       "set_tests_properties([==[${NAME}: ${line}]==] PROPERTIES LABELS [==[${LABELS}]==] "
                       "FAIL_REGULAR_EXPRESSION [==[test cases: +0 ]==])\n")
endforeach()
file(WRITE ${SCRIPT} "${script}")
