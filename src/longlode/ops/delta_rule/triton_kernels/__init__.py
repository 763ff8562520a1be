"""Triton kernels of the delta rule: `chunks.py` (T of every chunk), `scan.py` (states, outputs and the way back),
`gradients.py` (gradients of the inputs); `tiles.py` and `inverse.py` are what they share.

May import: triton, and modules of this folder. Importing a module here compiles nothing; it does read
TRITON_INTERPRET. Start reading: `../TRITON.md`, then `scan.py`. Letters as in `../README.md`.

Three rules hold in every kernel. (1) Only tiles that were loaded are transposed as operands of a product, never
an accumulator: Triton >= 3.4 gives wrong results on Hopper for `dot(trans(accumulator), x)` (wrong dk, dbeta and
dg in other projects' kernels for months). (2) No atomics: every sum has one owner and a fixed order. (3) Nothing
that varies with the length of the input is a constexpr or specialised, so a length never compiles anything.
"""
