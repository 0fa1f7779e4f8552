from .pure_rounds import BROKEN as BROKEN
from .pure_rounds import Wire as Wire
from .pure_rounds import queue_message as queue_message
from .pure_rounds import receive as receive
from .pure_rounds import send as send
from .pure_rounds import send_block as send_block
