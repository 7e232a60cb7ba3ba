"""The parts that screens are made of. A widget knows no store and no session manager."""
