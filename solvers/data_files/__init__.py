"""Sets of solutions and their files in the layouts of public benchmarks."""
