"""From tracklets to batches: images, clip sampling, transforms, occlusion, samplers."""
