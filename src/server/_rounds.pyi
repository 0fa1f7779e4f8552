from .pure_rounds import BROKEN as BROKEN
from .pure_rounds import Resumable as Resumable
from .pure_rounds import Wire as Wire
from .pure_rounds import receive as receive
from .pure_rounds import run_turns as run_turns
from .pure_rounds import send as send
from .pure_rounds import send_block as send_block
