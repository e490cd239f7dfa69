from probconserv.fields.atmosphere import AtmosphereFixer as AtmosphereFixer
from probconserv.fields.laws import block_means as block_means
from probconserv.fields.laws import level_totals as level_totals
from probconserv.fields.laws import region_totals as region_totals
from probconserv.fields.laws import sphere_areas as sphere_areas
from probconserv.fields.prediction import FieldLayout as FieldLayout
from probconserv.fields.prediction import condition_fields as condition_fields
