# `cpack -G DEB` in the build folder makes liblowrank-dev, the headers with their CMake package and pkg-config file, for every architecture.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_CONTACT "The lowrank project")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_COMPONENTS_ALL headers debian)
set(CPACK_COMPONENTS_GROUPING ALL_COMPONENTS_IN_ONE)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_NAME liblowrank-dev)
set(CPACK_DEBIAN_PACKAGE_ARCHITECTURE all)
set(CPACK_DEBIAN_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_PACKAGE_DEPENDS "libeigen3-dev (>= 3.4)")
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "nlohmann-json3-dev")  # for <lowrank/io.hpp>
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "pkg-config")
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION
    "LoRA, QLoRA and DoRA layers, 4-bit quantization and a small autograd over Eigen, by including headers in C++20.
 Kernels for AVX2, AVX-512 and NEON are chosen at run time.")
install(FILES LICENSE RENAME copyright DESTINATION share/doc/liblowrank-dev COMPONENT debian EXCLUDE_FROM_ALL)
include(CPack)
