"""Training: LoRA on chat examples with an exact reply mask, and adapters that mlx-lm reads.

This first loop is plain and correct: token-weighted loss over reply tokens only, gradient clipping, a stop on
non-finite loss, checkpoints under mlx-lm's names. Not here yet: exact resume, packing, other methods than LoRA.
"""
