"""Reading tables of wanted images.

``open_input`` gives an :class:`InputFile`; ``check`` it, then hand its ``tasks`` to the ledger.  Nothing here
sends anything or writes to a ledger.
"""

from bydawn.inputs.building import Problem as Problem
from bydawn.inputs.checking import Checked as Checked
from bydawn.inputs.checking import bad_rows_error as bad_rows_error
from bydawn.inputs.copies import fit_for as fit_for
from bydawn.inputs.files import InputFile as InputFile
from bydawn.inputs.files import open_input as open_input
from bydawn.inputs.mapping import parse_maps as parse_maps
from bydawn.inputs.options import InputOptions as InputOptions
from bydawn.inputs.options import with_defaults_of as with_defaults_of
