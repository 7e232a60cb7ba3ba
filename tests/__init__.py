"""Tests of Squish: through its real doors, on the real model where one is needed."""
