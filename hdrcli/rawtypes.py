"""Which files are camera RAW files, by name; light, so that a command line can ask without loading LibRaw."""

_NAMES = """
    3fr ari arw bay cap cr2 cr3 crw dcr dcs dng drf eip erf fff gpr iiq k25 kdc mdc mef mos mrw nef nrw orf ori pef ptx
    pxn r3d raf raw rw2 rwl rwz sr2 srf srw x3f
"""

SUFFIXES = frozenset("." + name for name in _NAMES.split())
