"""X-AnyLabeling's own remote-server code, without its windows: x_anylabeling.py http://127.0.0.1:PORT PICTURE

The module of the installed x-anylabeling-cvhub is loaded as it is; what it imports of the program around it (Qt, OpenCV,
the base class of models) is replaced by stand-ins that record what it makes. The whole program: see x_anylabeling_desktop.py.
"""

import importlib.util
import sys
import types


class Anything:
    """Stands for whatever the program around has, and is called with whatever."""

    def __init__(self, *args, **kwargs):
        self.args, self.__dict__ = args, {**self.__dict__, **kwargs}

    def __getattr__(self, name):
        return Anything()

    def __call__(self, *args, **kwargs):
        return Anything()


class Point(tuple):
    def __new__(cls, x, y):
        return super().__new__(cls, (x, y))


class Shape:
    def __init__(self, **kwargs):
        self.fields, self.points = kwargs, []

    def add_point(self, point):
        self.points.append(point)


class Result:
    def __init__(self, shapes, replace=True, description=""):
        self.shapes = shapes


class Model:
    def __init__(self, config, on_message):
        self.config = self._config = config
        self.on_message = on_message


def stand_in(name, **members):
    module = types.ModuleType(name)
    module.__dict__.update(members)
    module.__path__ = []
    sys.modules[name] = module


url, picture = sys.argv[1:]
package = importlib.util.find_spec("anylabeling").submodule_search_locations[0]
for name in ["cv2", "numpy", "PyQt6", "PyQt6.QtWidgets", "anylabeling", "anylabeling.views", "anylabeling.views.labeling"]:
    stand_in(name, QtCore=types.SimpleNamespace(QPointF=Point), QApplication=Anything)
stand_in("PyQt6.QtCore", QCoreApplication=types.SimpleNamespace(translate=lambda _, text: text))
stand_in("anylabeling.views.labeling.shape", Shape=Shape)
stand_in("anylabeling.views.labeling.logger", logger=Anything())
stand_in("anylabeling.views.labeling.utils")
stand_in("anylabeling.views.labeling.utils.opencv", qt_img_to_rgb_cv_img=None)
stand_in("anylabeling.services")
stand_in("anylabeling.services.auto_labeling")
stand_in("anylabeling.services.auto_labeling.model", Model=Model)
stand_in("anylabeling.services.auto_labeling.types", AutoLabelingResult=Result)
path = f"{package}/services/auto_labeling/remote_server.py"
spec = importlib.util.spec_from_file_location("anylabeling.services.auto_labeling.remote_server", path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

messages = []
remote = module.RemoteServer({"remote_server_settings": {"server_url": url, "api_key": ""}}, messages.append)
models = remote.get_available_models()
assert list(models) == ["segment_anything_3"], models
remote.set_model_id("segment_anything_3")
assert remote.get_batch_processing_mode() == "text_prompt"
print("ok models")

CIRCLE, STAR, HEART = (150, 140), (400, 150), [300, 320, 500, 525]


def inside(shape, place):
    """Whether a place is within a polygon, by the crossings of a ray."""
    (x, y), ring, odd = place, shape.points, False
    for (x0, y0), (x1, y1) in zip(ring, ring[1:] + ring[:1]):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            odd = not odd
    return odd


remote.set_auto_labeling_conf(0.5)
found = remote.predict_shapes(object(), picture, text_prompt="circle, dog.").shapes
assert found and not messages, messages
assert {s.fields["label"] for s in found} == {"circle"}, "there is no dog"
assert all(s.fields["shape_type"] == "polygon" and len(s.points) >= 4 for s in found)
assert any(inside(s, CIRCLE) for s in found) and not any(inside(s, STAR) for s in found)
print("ok text")

remote.set_auto_labeling_marks([{"type": "rectangle", "label": 1, "data": HEART}])
found = remote.predict_shapes(object(), picture).shapes
assert any(inside(s, (400, 420)) for s in found) and not messages, messages
print("ok rectangles")

remote.set_auto_labeling_marks([{"type": "point", "label": 1, "data": list(STAR)}])
found = remote.predict_shapes(object(), picture).shapes
assert len(found) == 1 and inside(found[0], STAR) and not inside(found[0], CIRCLE), messages
print("ok points")
