"""Data: sets by name, folders of images, toys, tables, speech; parts of them; batches made on the device."""

from mixlab.data.sets import Data, load, on_this_machine

__all__ = ["Data", "load", "on_this_machine"]
