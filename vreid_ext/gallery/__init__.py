"""A gallery that lives: tracklets with person, camera, time and pictures in an index that grows.

`Gallery` is the interface; `filters` has the filter language, `stores` the engines that keep the data.
"""

from vreid_ext.gallery.gallery import Added, Answer, Found, Gallery
from vreid_ext.gallery.rows import Record
from vreid_ext.gallery.stores import StoreError

__all__ = ["Added", "Answer", "Found", "Gallery", "Record", "StoreError"]
