from probconserv.tools.atmosphere import Atmosphere as Atmosphere
from probconserv.tools.hub import SurrogateOnHub as SurrogateOnHub
from probconserv.tools.labelled import Budget as Budget
from probconserv.tools.labelled import area_fractions as area_fractions
from probconserv.tools.labelled import constrain as constrain
from probconserv.tools.regressor import SurrogateRegressor as SurrogateRegressor
