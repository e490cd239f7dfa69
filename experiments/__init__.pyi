from experiments.boundary.experiment import load_operator as load_operator
from experiments.conservation.networks import load_pretrained as load_pretrained
