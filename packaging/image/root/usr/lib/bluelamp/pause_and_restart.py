#!/usr/bin/python3 -I
"""Leave a minute to read what the screen says, then restart."""

import os
import time

print("The unit cannot go on and restarts in a minute. Read the lines above.", flush=True)
time.sleep(60)
os.execv("/usr/bin/systemctl", ["systemctl", "--force", "reboot"])
