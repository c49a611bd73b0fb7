"""Exits with 0 when the server in this container is ready. The image has no curl.

Ready, not merely alive: an engine that hangs makes the container unhealthy, and so does draining.
"""

import os
import sys
import urllib.error
import urllib.request

try:
    urllib.request.urlopen(f"http://127.0.0.1:{os.environ['FATHOM_PORT']}/health/ready", timeout=4).close()
except (urllib.error.URLError, OSError) as error:
    sys.exit(f"not ready: {error}")
