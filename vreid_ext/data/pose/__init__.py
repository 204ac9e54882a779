"""Body joints: joints files, and estimation with a pose network (requires `vreid-ext[pose]`)."""
