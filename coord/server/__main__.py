"""python -m coord.server zoo.cfg"""

import sys

from coord.server.main import main

sys.exit(main())
