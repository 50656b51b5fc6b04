"""`python -m easycap COMMAND` is `easycap COMMAND`."""

from easycap.cli import main

raise SystemExit(main())
