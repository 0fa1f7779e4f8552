"""The command ``bench``: the speed of the codec on this machine."""
