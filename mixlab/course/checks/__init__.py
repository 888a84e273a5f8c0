"""The checks of the exercises, a file for each lesson; mixlab/course/exercises.py says how to add one."""
