"""The recipe of Conan 2 for this folder's sources: conan create packaging/conan

Headers by default; -o "lowrank/*:compiled=True" builds lowrank::compiled too. Eigen and nlohmann-json come from Conan, or with
-o "lowrank/*:dependencies=system" from where CMake finds them. Consumers use the CMake package that the library installs itself.
"""
import os
import re

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.cmake import CMake, CMakeToolchain, cmake_layout
from conan.tools.files import copy, load

required_conan_version = ">=2.0"


class Lowrank(ConanFile):
    name = "lowrank"
    description = "Low-rank adapted linear layers over dense and 4-bit bases"
    license = "Apache-2.0"
    topics = ("lora", "qlora", "quantization", "header-only")
    settings = "os", "arch", "compiler", "build_type"
    options = {"compiled": [True, False], "io": [True, False], "dependencies": ["conan", "system"]}
    default_options = {"compiled": False, "io": True, "dependencies": "conan"}
    generators = "CMakeDeps"
    no_copy_source = True

    @property
    def _root(self):
        return os.path.join(self.recipe_folder, "..", "..")

    def set_version(self):
        config = load(self, os.path.join(self._root, "include", "lowrank", "config.hpp"))
        self.version = ".".join(re.search(rf"LOWRANK_VERSION_{part} (\d+)", config)[1] for part in ("MAJOR", "MINOR", "PATCH"))

    def export_sources(self):
        for pattern in ("CMakeLists.txt", "LICENSE", "CHANGELOG.md", "include/*", "packaging/debian.cmake", "tests/support/single_header.py"):
            copy(self, pattern, src=self._root, dst=self.export_sources_folder)

    def configure(self):
        self.package_type = "static-library" if self.options.compiled else "header-library"

    def layout(self):
        cmake_layout(self)

    def requirements(self):
        if self.options.dependencies == "conan":
            self.requires("eigen/[>=3.4 <6]", transitive_headers=True)
            if self.options.io:
                self.requires("nlohmann_json/[>=3.11 <4]", transitive_headers=True)

    def package_id(self):
        if not self.info.options.compiled:
            self.info.settings.clear()

    def validate(self):
        if self.settings.get_safe("compiler.cppstd"):
            check_min_cppstd(self, 20)

    def generate(self):
        toolchain = CMakeToolchain(self)
        toolchain.cache_variables.update({"LOWRANK_TESTS": False, "LOWRANK_EXAMPLES": False, "LOWRANK_LIBRARY": bool(self.options.compiled),
                                          "CMAKE_DISABLE_FIND_PACKAGE_nlohmann_json": not self.options.io})
        toolchain.generate()

    def build(self):
        cmake = CMake(self)
        cmake.configure()
        if self.options.compiled:
            cmake.build()

    def package(self):
        CMake(self).install()
        copy(self, "LICENSE", src=self.source_folder, dst=os.path.join(self.package_folder, "licenses"))

    def package_info(self):
        self.cpp_info.set_property("cmake_find_mode", "none")  # the package has a CMake package of its own
        self.cpp_info.builddirs = [os.path.join("share", "cmake", "lowrank")]
        self.cpp_info.bindirs = []
        if not self.options.compiled:
            self.cpp_info.libdirs = []
        else:
            self.cpp_info.libs = ["lowrank_cuda", "lowrank"]
            self.cpp_info.defines = ["LOWRANK_COMPILED"]
        if self.settings.os in ("Linux", "FreeBSD"):
            self.cpp_info.system_libs = ["pthread"]
