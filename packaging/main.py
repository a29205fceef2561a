"""`bluelamp-unit`, as it is installed: the first folder Python looks into is this one, which holds nothing else."""

from appliance.cli import main

main()
