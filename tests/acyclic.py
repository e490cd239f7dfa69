"""A contract of import-linter: no module imports itself by way of others, imports for annotations included."""

from graphlib import CycleError, TopologicalSorter

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, output


class AcyclicContract(Contract):
    """Modules of the root packages import each other without a circle.

    ``acyclic_siblings`` of import-linter asks more, of packages: one that imports a module of another, which imports a
    third module of the first, is a circle to it.
    """

    type_name = "acyclic"

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: ARG002 - the signature of the parent
        """Kept if there is an order of the modules in which each imports earlier ones only."""
        imported = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
        try:
            TopologicalSorter(imported).prepare()
        except CycleError as error:
            return ContractCheck(kept=False, metadata={"circle": error.args[1]})
        return ContractCheck(kept=True)

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Prints the circle."""
        output.print_error(" imports ".join(reversed(check.metadata["circle"])))
