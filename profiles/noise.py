"""Seeded noise in the block formats of GGML: finite values near zero mean, whatever the type.

Random bytes alone would make NaN scales; each format's scale fields are therefore set to a small constant.
Source of the field offsets: ggml/src/ggml-common.h (block_q4_K and its neighbours).
"""

from typing import TYPE_CHECKING, Final

from glmplan.errors import ProfileError
from glmplan.ggml_types import BLOCKS, GgmlType

if TYPE_CHECKING:
    import numpy as np

# type -> (byte offset in the block, value) of each half-precision scale
_SCALES: Final[dict[GgmlType, tuple[tuple[int, float], ...]]] = {
    GgmlType.Q4_0: ((0, 0.004),),
    GgmlType.Q5_0: ((0, 0.002),),
    GgmlType.Q8_0: ((0, 0.0003),),
    GgmlType.Q2_K: ((80, 0.002), (82, 0.003)),
    GgmlType.Q3_K: ((108, 0.0005),),
    GgmlType.Q4_K: ((0, 0.0001), (2, 0.00075)),
    GgmlType.Q5_K: ((0, 0.00005), (2, 0.00078)),
    GgmlType.Q6_K: ((208, 0.00002),),
    GgmlType.IQ4_NL: ((0, 0.0005),),
    GgmlType.IQ4_XS: ((0, 0.00002),),
    GgmlType.IQ3_XXS: ((0, 0.0005),),
    GgmlType.IQ3_S: ((0, 0.0005),),
    GgmlType.IQ2_XXS: ((0, 0.0005),),
    GgmlType.IQ2_XS: ((0, 0.0005),),
    GgmlType.IQ2_S: ((0, 0.0005),),
}
_SPREAD: Final = 0.02


def noise_blocks(generator: "np.random.Generator", ggml_type: GgmlType, n_blocks: int) -> bytes:
    """Bytes of `n_blocks` blocks of small random values.

    Raises:
        ProfileError: a type whose scale fields are not known here.
    """
    import numpy as np

    elements, size = BLOCKS[ggml_type]
    if ggml_type in {GgmlType.F32, GgmlType.F16, GgmlType.BF16}:
        values = generator.standard_normal(n_blocks * elements, dtype=np.float32) * np.float32(_SPREAD)
        if ggml_type is GgmlType.BF16:
            return (values.view(np.uint32) >> np.uint32(16)).astype(np.uint16).tobytes()
        return values.astype(np.float32 if ggml_type is GgmlType.F32 else np.float16).tobytes()
    if ggml_type not in _SCALES:
        message = f"no noise for tensors of type {ggml_type.name}"
        raise ProfileError(message, hint="write the synthetic model without random weights")
    blocks = generator.integers(0, 256, size=(n_blocks, size), dtype=np.uint8)
    for offset, value in _SCALES[ggml_type]:
        blocks[:, offset : offset + 2] = np.frombuffer(np.float16(value).tobytes(), dtype=np.uint8)
    return blocks.tobytes()


def one_blocks(n_blocks: int) -> bytes:
    """Bytes of `n_blocks` f32 ones (normalisation weights)."""
    import numpy as np

    return np.ones(n_blocks, dtype=np.float32).tobytes()
