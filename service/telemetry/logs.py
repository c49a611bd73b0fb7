"""What the log looks like: lines for people, or a JSON object per line for programs."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from service.settings import Settings

TEXT = "%(asctime)s %(levelname)s %(message)s"
QUIETER = {  # loggers that say too much, or what is not theirs to say, and from which level on they may speak
    "uvicorn.error": logging.WARNING,  # we tell of our starts and stops ourselves
    "httpx": logging.WARNING,
    "httpcore": logging.INFO,  # headers, at debug
    "urllib3": logging.INFO,
    "botocore": logging.INFO,
    "aiobotocore": logging.INFO,
    "fsspec": logging.INFO,
}


def set_up_logging(settings: Settings) -> None:
    """Log to stderr as the settings have it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if settings.log_format == "json" else logging.Formatter(TEXT))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    for name, level in QUIETER.items():
        logging.getLogger(name).setLevel(level)


class JsonLines(logging.Formatter):
    """An object per record: time, level, logger, message; what a request was, where it is about one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if isinstance(request := getattr(record, "request", None), dict):
            line["message"] = "request"
            line |= request
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)
