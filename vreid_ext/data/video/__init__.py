"""From videos to tracklets: people are detected, linked over time and cropped; needs `vreid-ext[video]`."""

from vreid_ext.data.video.extract import extract_tracklets, extract_videos

__all__ = ["extract_tracklets", "extract_videos"]
