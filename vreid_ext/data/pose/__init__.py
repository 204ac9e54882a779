"""Joints of people: files of them, and their estimation by a pose network (needs `vreid-ext[pose]`)."""
