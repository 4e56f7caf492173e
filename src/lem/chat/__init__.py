"""Chat: load a model with its adapter, render conversations, generate answers in batches with per-row seeds.

`load` -> `ChatModel`; `render` turns messages into exact tokens; `generate` decodes fixed groups of rows over
mlx-lm's `BatchGenerator`, with the prefix that all rows of an arm share (a 9 kB kernel, say) prefilled once.
This is the lowest room that imports MLX, and it does so inside functions or submodules only: importing
`lem.chat` costs nothing.
"""
