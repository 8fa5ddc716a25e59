"""`.3mf`: a mesh with a texture for 3D printing, a zip file of XML and a picture (3MF Core 1.3, Materials 1.2)."""

from __future__ import annotations

import io
import zipfile
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from exporting.mesh.gltf import png
from exporting.mesh.textured import TexturedMesh

CORE = "http://schemas.microsoft.com/3dmanufacturing/core/2015/02"
MATERIALS = "http://schemas.microsoft.com/3dmanufacturing/material/2015/02"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
TEXTURE_TYPE = "http://schemas.microsoft.com/3dmanufacturing/2013/01/3dtexture"
MODEL_TYPE = "http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"
MODEL, TEXTURE = "3D/3dmodel.model", "3D/Textures/texture.png"
XML = '<?xml version="1.0" encoding="UTF-8"?>\n'


def encode(mesh: TexturedMesh, name: str) -> bytes:
    """The file, in millimetres. Corners of faces have the places in the texture, so that vertices need no seams."""
    files: dict[str, str | bytes] = {
        "[Content_Types].xml": f'{XML}<Types xmlns="{PACKAGE}/content-types">'
        f'<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Default Extension="model" ContentType="application/vnd.ms-package.3dmanufacturing-3dmodel+xml"/>'
        f'<Default Extension="png" ContentType="image/png"/></Types>',
        "_rels/.rels": _relationship(MODEL_TYPE, MODEL),
        "3D/_rels/3dmodel.model.rels": _relationship(TEXTURE_TYPE, TEXTURE),
        MODEL: _model(mesh, name),
        TEXTURE: png(mesh.texture),
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bundle:
        # ZipInfo's own date, not today's: the same mesh gives the same bytes.
        for path, content in files.items():
            bundle.writestr(zipfile.ZipInfo(path), content, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def _relationship(kind: str, target: str) -> str:
    return (
        f'{XML}<Relationships xmlns="{PACKAGE}/relationships">'
        f'<Relationship Id="rel0" Type="{kind}" Target="/{target}"/></Relationships>'
    )


def _model(mesh: TexturedMesh, name: str) -> str:
    vertices, faces = mesh.merged
    # Here a texture begins at the bottom.
    places = np.stack([mesh.places[:, 0], 1 - mesh.places[:, 1]], axis=1)
    title = quoteattr(name)
    return "\n".join(
        [
            f'{XML}<model unit="millimeter" xmlns="{CORE}" xmlns:m="{MATERIALS}"><resources>',
            f'<m:texture2d id="1" path="/{TEXTURE}" contenttype="image/png" tilestyleu="clamp" tilestylev="clamp"/>',
            '<m:texture2dgroup id="2" texid="1">',
            *_elements("m:tex2coord", "uv", places),
            f'</m:texture2dgroup><object id="3" name={title} type="model" pid="2" pindex="0"><mesh><vertices>',
            *_elements("vertex", "xyz", vertices),
            "</vertices><triangles>",
            *(
                f'<triangle v1="{a}" v2="{b}" v3="{c}" pid="2" p1="{p}" p2="{q}" p3="{r}"/>'
                for (a, b, c), (p, q, r) in zip(faces.tolist(), mesh.faces.tolist())
            ),
            '</triangles></mesh></object></resources><build><item objectid="3"/></build></model>',
        ]
    )


def _elements(tag: str, names: str, values: NDArray[np.floating]) -> list[str]:
    template = f"<{tag} " + " ".join(f'{name}="{{:.6g}}"' for name in names) + "/>"
    return [template.format(*row) for row in values.tolist()]
