#!/usr/bin/env python3
"""Each header includes the standard headers of the names that it uses itself: python3 check_std.py ROOT

A body (x.inl of x.hpp) has what its header includes. std::size_t comes with every header that has a size in it, and is not looked for.
"""
import os
import re
import sys

NAMES = {
    "algorithm": "all_of any_of clamp copy copy_n count_if equal fill fill_n find find_if is_sorted max max_element min min_element minmax_element "
                 "nth_element none_of partial_sort replace reverse sort stable_sort swap_ranges transform unique lower_bound upper_bound",
    "array": "array to_array",
    "atomic": "atomic",
    "bit": "has_single_bit bit_ceil bit_width countr_zero popcount endian",
    "charconv": "from_chars to_chars",
    "cmath": "abs ceil cos erf exp fma floor isfinite isnan isnormal ldexp log log2 lround pow round sin sqrt tanh",
    "concepts": "convertible_to constructible_from derived_from same_as floating_point integral",
    "cstddef": "byte nullptr_t max_align_t",
    "cstdint": "int8_t int16_t int32_t int64_t uint8_t uint16_t uint32_t uint64_t uintptr_t",
    "cstring": "memchr memcmp memcpy memset strerror strlen",
    "exception": "exception_ptr current_exception rethrow_exception",
    "filesystem": "filesystem",
    "functional": "function hash",
    "initializer_list": "initializer_list",
    "iterator": "back_inserter distance make_move_iterator next prev",
    "limits": "numeric_limits",
    "map": "map",
    "memory": "make_shared make_unique shared_ptr unique_ptr weak_ptr",
    "mutex": "lock_guard mutex unique_lock",
    "new": "align_val_t bad_alloc",
    "numeric": "accumulate iota partial_sum",
    "optional": "optional nullopt",
    "set": "set",
    "span": "span as_bytes",
    "string": "string to_string",
    "string_view": "string_view",
    "thread": "thread this_thread",
    "tuple": "tuple tie",
    "type_traits": "conditional_t decay_t enable_if_t false_type is_arithmetic_v is_const_v is_convertible_v is_floating_point_v is_integral_v is_same_v "
                   "is_signed_v is_unsigned_v is_void_v remove_const_t remove_cvref_t remove_pointer_t remove_reference_t true_type invoke_result_t underlying_type_t",
    "unordered_map": "unordered_map",
    "utility": "as_const declval exchange forward in_range index_sequence make_index_sequence make_pair move pair",
    "variant": "get_if holds_alternative monostate variant visit",
    "vector": "vector",
}
HEADER_OF = {name: header for header, names in NAMES.items() for name in names.split()}
ENOUGH = {"string_view": {"string"}}  # a header that promises another's names


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def included(text):
    return set(re.findall(r"^\s*#\s*include\s*<([a-z_]+)>", text, re.M))


def missing(path):
    text = read(path)
    has = included(text)
    header = path.removesuffix(".inl") + ".hpp"
    if path.endswith(".inl"):
        if not os.path.exists(header) or f"/{os.path.basename(path)}>" not in read(header):
            return []  # a part, which stands inside of other files
        has |= included(read(header))
    code = re.sub(r"//.*|\"(?:[^\"\\]|\\.)*\"", "", text)
    used = {HEADER_OF[name] for name in re.findall(r"\bstd::(\w+)", code) if name in HEADER_OF}
    return sorted(header for header in used - has if not ENOUGH.get(header, set()) & has)


def main():
    root, faults, count = os.path.join(sys.argv[1], "include"), 0, 0
    for folder, _, names in sorted(os.walk(root)):
        for name in sorted(n for n in names if n.endswith((".hpp", ".inl"))):
            path, count = os.path.join(folder, name), count + 1
            for header in missing(path):
                faults += 1
                print(f"{os.path.relpath(path, root)} uses names of <{header}> and does not include it")
    print(f"{count} files, {faults} includes missing")
    sys.exit(1 if faults or not count else 0)


if __name__ == "__main__":
    main()
