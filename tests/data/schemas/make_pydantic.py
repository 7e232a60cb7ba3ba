"""Writes pydantic.json beside this file: the JSON schemas that Pydantic makes of its types.

pip install pydantic email-validator
python tests/data/schemas/make_pydantic.py
"""

from __future__ import annotations

import datetime
import decimal
import enum
import ipaddress
import json
import pathlib
import re
import typing
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import pydantic
from pydantic import BaseModel, ConfigDict, Field, RootModel, TypeAdapter
from typing_extensions import TypedDict

T = typing.TypeVar("T")


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    breed: str


class DefaultCat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int


class DefaultDog(BaseModel):
    kind: Literal["dog"] = "dog"
    breed: str


class Address(BaseModel):
    street: str
    city: str
    zip_code: Annotated[str, Field(pattern=r"^\d{5}$")]


class Person(BaseModel):
    """A person."""

    name: Annotated[str, Field(min_length=1, max_length=40, description="Full name.")]
    age: Annotated[int, Field(ge=0, le=150)]
    email: pydantic.EmailStr | None = None
    addresses: list[Address] = []


class Tree(BaseModel):
    value: int
    left: Tree | None = None
    right: Tree | None = None


class Node(BaseModel):
    name: str
    children: list[Node] = []


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int
    b: str = "x"


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


class Aliased(BaseModel):
    first_name: Annotated[str, Field(alias="firstName")]


class Examples(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"q": "x"}]})
    q: Annotated[str, Field(examples=["x"], deprecated=True)]


class Pet(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]


class DefaultPet(BaseModel):
    pet: Annotated[DefaultCat | DefaultDog, Field(discriminator="kind")]


class Step(BaseModel):
    explanation: str
    output: str


class MathReasoning(BaseModel):
    steps: list[Step]
    final_answer: str


class Tagged(BaseModel):
    tags: set[str]


class Page(BaseModel, typing.Generic[T]):
    items: list[T]
    total: int


class Point(NamedTuple):
    x: float
    y: float


class Movie(TypedDict, total=False):
    title: typing.Required[str]
    year: int


@dataclass
class Order:
    id: uuid.UUID
    when: datetime.datetime
    amount: decimal.Decimal
    lines: dict[str, int]


TYPES: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "None": None,
    "Any": Any,
    "bytes": bytes,
    "list": list,
    "dict": dict,
    "list[int]": list[int],
    "Sequence[str]": Sequence[str],
    "set[int]": set[int],
    "frozenset[str]": frozenset[str],
    "set[Literal]": set[Literal["a", "b"]],
    "tuple[int, str]": tuple[int, str],
    "tuple[int, ...]": tuple[int, ...],
    "dict[str, int]": dict[str, int],
    "dict[int, str]": dict[int, str],
    "dict[Enum, int]": dict[Color, int],
    "dict[Literal, bool]": dict[Literal["a", "b"], bool],
    "dict[UUID, str]": dict[uuid.UUID, str],
    "dict[pattern, int]": dict[Annotated[str, Field(pattern=r"^x_")], int],
    "dict[constr, int]": dict[Annotated[str, Field(min_length=2, max_length=5)], int],
    "Optional[int]": int | None,
    "Union[int, str]": int | str,
    "Literal": Literal["a", 1, True, None],
    "Enum": Color,
    "IntEnum": Level,
    "UUID": uuid.UUID,
    "UUID4": pydantic.UUID4,
    "Path": pathlib.Path,
    "FilePath": pydantic.FilePath,
    "datetime": datetime.datetime,
    "AwareDatetime": pydantic.AwareDatetime,
    "date": datetime.date,
    "time": datetime.time,
    "timedelta": datetime.timedelta,
    "Decimal": decimal.Decimal,
    "condecimal": Annotated[decimal.Decimal, Field(max_digits=6, decimal_places=2)],
    "IPv4Address": ipaddress.IPv4Address,
    "IPv6Address": ipaddress.IPv6Address,
    "IPvAnyAddress": pydantic.IPvAnyAddress,
    "IPv4Network": ipaddress.IPv4Network,
    "AnyUrl": pydantic.AnyUrl,
    "HttpUrl": pydantic.HttpUrl,
    "PostgresDsn": pydantic.PostgresDsn,
    "EmailStr": pydantic.EmailStr,
    "NameEmail": pydantic.NameEmail,
    "SecretStr": pydantic.SecretStr,
    "Json": pydantic.Json[dict[str, int]],
    "Base64Bytes": pydantic.Base64Bytes,
    "Base64Str": pydantic.Base64Str,
    "ByteSize": pydantic.ByteSize,
    "Pattern": re.Pattern,
    "PositiveInt": pydantic.PositiveInt,
    "NegativeFloat": pydantic.NegativeFloat,
    "FiniteFloat": pydantic.FiniteFloat,
    "conint": Annotated[int, Field(ge=1, le=100, multiple_of=5)],
    "confloat": Annotated[float, Field(gt=0, lt=1)],
    "constr": Annotated[str, Field(min_length=3, max_length=8)],
    "pattern": Annotated[str, Field(pattern=r"^[A-Z]{3}-\d+$")],
    "password": Annotated[str, Field(min_length=8, pattern=r"^(?=.*[a-z])(?=.*\d).+$")],
    "conlist": Annotated[list[int], Field(min_length=1, max_length=3)],
    "Person": Person,
    "Tree": Tree,
    "Node": Node,
    "Closed": Closed,
    "Open": Open,
    "Aliased": Aliased,
    "Examples": Examples,
    "Cat | Dog": Cat | Dog,
    "Pet": Pet,
    "DefaultPet": DefaultPet,
    "MathReasoning": MathReasoning,
    "Tagged": Tagged,
    "Page[Step]": Page[Step],
    "NamedTuple": Point,
    "TypedDict": Movie,
    "dataclass": Order,
    "RootModel": RootModel[list[Person]],
}


def main() -> None:
    look_around = ConfigDict(regex_engine="python-re")
    schemas = {}
    for name, kind in TYPES.items():
        config = look_around if name == "password" else None
        schemas[name] = TypeAdapter(kind, config=config).json_schema()
    made = {"made_by": f"pydantic {pydantic.VERSION}", "schemas": schemas}
    target = pathlib.Path(__file__).with_name("pydantic.json")
    target.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{len(schemas)} schemas in {target}")


if __name__ == "__main__":
    main()
