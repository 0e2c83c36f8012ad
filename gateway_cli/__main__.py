"""``python -m gateway_cli`` is ``model-gateway``."""

import sys

from gateway_cli.main import main

if __name__ == "__main__":
    sys.exit(main())
