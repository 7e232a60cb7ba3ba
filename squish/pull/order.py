"""What one pull is to install: under which id, from where, compressed in which way.

A name that does not say how the model is compressed gets the tag of its compression, where that is not the usual one.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from squish.config.settings import Settings
from squish.download.patience import Policy
from squish.errors import CorruptModel, InvalidInput, ModelNotFound
from squish.models import recipes
from squish.models.manifest import Installed, read_json
from squish.models.recipes import CompressionOptions
from squish.models.store import Store
from squish.names import ModelId, ModelRef
from squish.pull.neighbors import Neighbor
from squish.pull.sources import DirectorySource, FileSource, HubSource, Source, resolve


@dataclass(frozen=True, slots=True)
class Order:
    """One pull.

    ref: the id that the model is installed under; name: what, pulled once more, gives the same model, whatever its id;
    as_published: the catalog chose this repository for the bits that it has; policy: the patience of the download.
    """

    ref: ModelId
    name: str
    source: Source
    compression: CompressionOptions
    settings: Settings
    store: Store
    license: str | None = None
    as_published: bool = False
    policy: Policy | None = None

    @property
    def id(self) -> str:
        return str(self.ref)

    @property
    def is_tagged(self) -> bool:
        """Whether the repository's tag says how to compress, where it is not that of a file."""
        return isinstance(self.source, HubSource) and recipes.from_tag(self.source.repo.tag) is not None

    @property
    def is_named_by_tag(self) -> bool:
        """Whether the id is the repository with its tag, so that what is installed under it is what is meant."""
        return self.is_tagged and isinstance(self.source, HubSource) and self.ref == self.source.repo

    @property
    def local_recipe(self) -> str | None:
        """The tag of how a directory is to be compressed, where it is."""
        recipe = self.compression.recipe
        return recipes.tag(recipe) if isinstance(self.source, DirectorySource) and recipe is not None else None

    @property
    def original_ref(self) -> ModelId:
        """The id for the original that a compressed model is made of."""
        base = recipes.untagged(self.ref, recipes.tag(self.compression.recipe))
        return recipes.tagged(base, recipes.tag(None))


def make_order(
    ref: ModelRef,
    wanted_id: ModelId | None,
    compression: CompressionOptions | None,
    settings: Settings,
    store: Store,
    policy: Policy | None,
) -> Order:
    """What a name and the options of a pull mean together. wanted_id: to install under, None for the source's own.

    Raises what `resolve` raises, and InvalidInput for options that contradict the name or each other.
    """
    target = resolve(ref, id=wanted_id, offline=settings.offline)
    id, source, options = target.ref, target.source, compression or CompressionOptions()
    if isinstance(source, DirectorySource):
        options = _for_directory(source, options)
        if wanted_id is None and options.recipe is not None:
            id = recipes.tagged(id, recipes.tag(options.recipe))
    elif isinstance(source, FileSource):
        _require_nothing_to_compress(id, options)
        options = CompressionOptions(None)
    elif (tagged := recipes.from_tag(source.repo.tag)) is not None:
        if options.explicit:
            hint = "Leave --bits, --group-size, --search and --calibrate out."
            raise InvalidInput(f"{id} names its bits already.", hint=hint, param="--bits")
        options = replace(options, recipe=tagged.recipe, explicit=True)
        _require_compressing(options)
    elif options.explicit:
        _require_compressing(options)
        if wanted_id is None and options.recipe != recipes.DEFAULT:
            id = recipes.tagged(id, recipes.tag(options.recipe))
    else:
        options = replace(options, recipe=None if target.as_published else recipes.DEFAULT)
    if options.context is not None and not (options.recipe and options.recipe.fit):
        raise InvalidInput("--context says for which context --bits fit is to choose.", param="--context")
    chosen_by_catalog = target.as_published and not options.explicit
    name = str(ref) if chosen_by_catalog else _name_of(source, options)
    return Order(id, name, source, options, settings, store, target.license, target.as_published, policy)


def _name_of(source: Source, options: CompressionOptions) -> str:
    """A name of the source itself, with the tag of the compression where that is not the usual one."""
    if not isinstance(source, HubSource):
        return str(source.path)
    usual = source.repo.tag or options.recipe == recipes.DEFAULT
    return str(source.repo if usual else replace(source.repo, tag=recipes.tag(options.recipe)))


def order_for(model: Neighbor, settings: Settings, store: Store, wanted_id: ModelId | None = None) -> Order:
    """The order for a model of another program, which is taken as it is."""
    source: Source
    if model.linked:
        source = DirectorySource(model.path, True, model.repo, model.revision)
    else:
        source = FileSource(model.path, f"file:{model.path}")
    name = model.id if model.repo is not None and model.linked else str(model.path)
    return Order(wanted_id or model.ref, name, source, CompressionOptions(None), settings, store)


def already_installed(order: Order) -> Installed | None:
    """The model of an order if it is installed and, for a local file, not older than the file.

    Raises InvalidInput where another one has its name.
    """
    try:
        found = order.store.find(order.id)
    except (ModelNotFound, CorruptModel):
        return None
    hint = "Give this one another name with --name, or replace it with --force."
    if found.manifest.source != str(order.source) and not order.as_published:
        raise InvalidInput(f"{order.id} is installed from {found.manifest.source}.", hint=hint, param="name")
    recipe, config = order.compression.recipe, read_json(found.path / "config.json")
    if order.compression.context is not None:
        problem = f"{order.id} is installed already, with bits for the context that was asked for then."
        raise InvalidInput(problem, hint="--force chooses them again, for this one.", param="--context")
    chosen = order.compression.explicit and not order.is_named_by_tag
    if isinstance(order.source, DirectorySource) and not order.source.linked:
        same, chosen = found.manifest.recipe == order.local_recipe, True
    else:
        same = recipe is None or (
            found.manifest.pulled == order.name if recipe.fit or recipe.size else recipes.matches(recipe, config)
        )
    if chosen and not same:
        raise InvalidInput(f"{order.id} is installed as {found.manifest.quantization}.", hint=hint, param="--bits")
    if isinstance(order.source, HubSource) or order.as_published:
        return found
    changed = order.source.path.stat().st_mtime > found.manifest.installed_at.timestamp()
    return None if changed else found


def _require_nothing_to_compress(id: ModelId, options: CompressionOptions) -> None:
    """Raises InvalidInput where a GGUF file of this machine is to be compressed."""
    flag = options.compress_only_flag or options.recipe_flag
    if flag is not None:
        raise InvalidInput(
            "A GGUF file is compressed already: only safetensors, of a repository or a directory, are compressed.",
            hint=f"{id} can be taken as it is, without {flag}.",
            param=flag,
        )


def _for_directory(source: DirectorySource, options: CompressionOptions) -> CompressionOptions:
    """The options for a directory of this machine, which is taken as it is unless one of them asks to compress it.

    Raises InvalidInput.
    """
    if options.keep_source:
        problem = f"--keep-source is about what is downloaded: {source.path} stays where it is."
        raise InvalidInput(problem, hint="Leave --keep-source out.", param="--keep-source")
    if options.explicit:
        _require_compressing(options)
        return options
    if options.measure:
        return replace(options, recipe=recipes.DEFAULT, explicit=True)
    return replace(options, recipe=None)


def _require_compressing(options: CompressionOptions) -> None:
    """Raises InvalidInput where nothing is compressed, but an option needs that."""
    if options.recipe is None and (flag := options.compress_only_flag) is not None:
        raise InvalidInput(f"{flag} is about compressing, and --bits none compresses nothing.", param=flag)
