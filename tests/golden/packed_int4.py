"""Makes packed_int4.safetensors: weights packed as AutoGPTQ and AutoAWQ document it, and what they stand for (numpy and safetensors).

For each case NAME.qweight, .qzeros, .scales, (.g_idx) as in a model's files, and NAME.weight fp32 [out, in] = scale (q - zero).
"""
import pathlib

import numpy as np
from safetensors.numpy import save_file

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # output of eight that nibble i of a word holds


def pack(numbers, order, axis):
    """Eight neighbours along an axis a word of 32 bits: nibble i holds number order[i]."""
    numbers = np.moveaxis(numbers.astype(np.uint32), axis, -1)
    eights = numbers.reshape(*numbers.shape[:-1], -1, 8)
    words = np.zeros(eights.shape[:-1], np.uint32)
    for i, place in enumerate(order):
        words |= eights[..., place] << np.uint32(4 * i)
    return np.ascontiguousarray(np.moveaxis(words, -1, axis)).view(np.int32)


def case(random, rows, cols, group, awq=False, zero_less_one=True, act_order=False):
    groups = -(-cols // group)
    q, zeros = random.integers(0, 16, (cols, rows)), random.integers(0, 16, (groups, rows))
    scales = (random.standard_normal((groups, rows)) * 0.1).astype(np.float16)
    group_of = np.arange(cols) // group
    if act_order:
        random.shuffle(group_of)
    weight = (q - zeros[group_of]).astype(np.float32) * scales[group_of].astype(np.float32)
    straight = range(8)
    stored = zeros if awq or not zero_less_one else (zeros - 1) & 15
    made = {"qweight": pack(q, AWQ_ORDER if awq else straight, 1 if awq else 0), "qzeros": pack(stored, AWQ_ORDER if awq else straight, 1),
            "scales": scales, "weight": np.ascontiguousarray(weight.T)}
    if not awq:
        made["g_idx"] = group_of.astype(np.int32)
    return made


def main():
    random = np.random.default_rng(5)
    cases = {"gptq": case(random, 24, 128, 32), "gptq_v2": case(random, 16, 64, 64, zero_less_one=False),
             "act_order": case(random, 16, 128, 32, act_order=True), "ragged": case(random, 8, 80, 32), "small": case(random, 8, 32, 16),
             "awq": case(random, 24, 128, 64, awq=True)}
    save_file({f"{name}.{part}": data for name, parts in cases.items() for part, data in parts.items()},
              pathlib.Path(__file__).parent / "packed_int4.safetensors")


if __name__ == "__main__":
    main()
