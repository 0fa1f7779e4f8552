from typing import Any

from typing_extensions import Buffer

INSTRUCTION_SET: str

def accept_key(key: str) -> str: ...
def mask(payload: Buffer, masking_key: Buffer) -> bytes: ...
def mask_into(buffer: Buffer, masking_key: Buffer, offset: int = 0) -> None: ...
def encode_frame(
    opcode: int,
    payload: Buffer | str = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masking_key: Buffer | bool | None = None,
) -> bytes: ...
def parse_frame(data: Buffer, start: int) -> tuple[int, int, int, int] | None: ...
def take_frame(
    data: Buffer, start: int, limit: int, masked: bool
) -> tuple[int, bytes, int] | None: ...
def take_messages(
    data: Buffer, start: int, messages: list[Any], limit: int, masked: bool
) -> int: ...
