"""Triton kernels of the delta rule: `chunks.py` (T of every chunk), `scan.py` (states and outputs, and the backward
scan), `gradients.py` (gradients of the inputs); `tiles.py` and `inverse.py` are shared.

May import: triton, and modules of this folder. Importing a module here compiles nothing; it does read
TRITON_INTERPRET. Start reading: `../TRITON.md`, then `scan.py`. Symbols as in `../README.md`.

Three rules hold in every kernel. (1) Only tiles that were loaded are transposed as operands of a product, never
an accumulator: Triton >= 3.4 gives wrong results on Hopper for `dot(trans(accumulator), x)` (wrong dk, dbeta and
dg in other projects' kernels for months). (2) No atomics: every sum is made by one program in a fixed order. (3) No
value that depends on the input's length is a constexpr or specialised, so a new length never causes a compilation.
"""
