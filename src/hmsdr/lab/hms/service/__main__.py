"""``python -m hmsdr.lab.hms.service``: a pod without a kubelet, with its settings in the environment."""

import os

from hmsdr.lab.hms.service import main

if __name__ == "__main__":
    raise SystemExit(main(os.environ))
