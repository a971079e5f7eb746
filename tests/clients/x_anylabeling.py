"""X-AnyLabeling's own remote-server code, without its windows: anylabeling.py http://127.0.0.1:PORT PICTURE PACKAGE

PACKAGE is the unpacked wheel of x-anylabeling-cvhub. Its module is loaded as it is; what it imports of the program
around it (Qt, OpenCV, the base class of models) is replaced by stand-ins that record what it makes.
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


class Shape:
    def __init__(self, **kwargs):
        self.fields, self.points = kwargs, []

    def add_point(self, point):
        self.points.append(point.args)


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


url, picture, package = sys.argv[1:]
for name in ["cv2", "numpy", "PyQt6", "PyQt6.QtWidgets", "anylabeling", "anylabeling.views", "anylabeling.views.labeling"]:
    stand_in(name, QtCore=types.SimpleNamespace(QPointF=Anything), QApplication=Anything)
stand_in("PyQt6.QtCore", QCoreApplication=types.SimpleNamespace(translate=lambda _, text: text))
stand_in("anylabeling.views.labeling.shape", Shape=Shape)
stand_in("anylabeling.views.labeling.logger", logger=Anything())
stand_in("anylabeling.views.labeling.utils")
stand_in("anylabeling.views.labeling.utils.opencv", qt_img_to_rgb_cv_img=None)
stand_in("anylabeling.services")
stand_in("anylabeling.services.auto_labeling")
stand_in("anylabeling.services.auto_labeling.model", Model=Model)
stand_in("anylabeling.services.auto_labeling.types", AutoLabelingResult=Result)
path = f"{package}/anylabeling/services/auto_labeling/remote_server.py"
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

remote.set_auto_labeling_conf(0.001)
found = remote.predict_shapes(object(), picture, text_prompt="red circle, dog.")
assert found.shapes and not messages, messages
assert {s.fields["label"] for s in found.shapes} <= {"red circle", "dog"}
assert all(s.fields["shape_type"] == "polygon" and len(s.points) >= 4 for s in found.shapes)
print("ok text")

remote.set_auto_labeling_marks([{"type": "rectangle", "label": 1, "data": [4, 6, 30, 40]}])
assert remote.predict_shapes(object(), picture).shapes and not messages, messages
print("ok rectangles")

remote.set_auto_labeling_marks([{"type": "point", "label": 1, "data": [30, 20]}])
assert len(remote.predict_shapes(object(), picture).shapes) <= 1 and not messages, messages
print("ok points")
