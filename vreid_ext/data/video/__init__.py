"""Tracklets from videos: detect people, link the boxes over time, crop them (requires `vreid-ext[video]`)."""

from vreid_ext.data.video.extract import extract_tracklets, extract_videos

__all__ = ["extract_tracklets", "extract_videos"]
