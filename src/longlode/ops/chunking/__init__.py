"""chunking: shared by ops that process sequences in chunks: layout of documents, scratch memory, triangular inverses.

May import: core, torch and `ops.packed`. Start reading: `layout.py` (documents to chunks to tiles, and the moves
between `[B, T, H, K]` and the order of a scan); `triangular.py` inverts I + A of every chunk, `precision.py` defines
the dtype of states, `scratch.py` holds buffers that tiles reuse.
"""
