"""Batches of clips: image loading, clip sampling, transforms, occlusion and batch samplers."""
