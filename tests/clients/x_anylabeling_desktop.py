"""X-AnyLabeling's desktop, windows and all, against a server: x_anylabeling_desktop.py http://127.0.0.1:PORT PICTURE SCREENSHOT

Wants all of x-anylabeling-cvhub (1.2 GB) and a display, such as that of `xvfb-run -s "-screen 0 1600x1000x24"`. The program
runs as it is; what a person would do to it is done by events on its widgets: a model is chosen, words are typed and sent,
and a star is clicked on. SCREENSHOT is what the window shows after the words.
"""

import os
import pathlib
import shutil
import sys
import tempfile
import traceback

import PyQt6.QtWidgets as widgets
from PyQt6.QtCore import QPoint, QPointF, Qt, QTimer
from PyQt6.QtTest import QTest

url, picture, screenshot = sys.argv[1], sys.argv[2], os.path.abspath(sys.argv[3])
work = tempfile.mkdtemp()
os.environ["HOME"] = work
# The program writes what it knows of a picture beside it.
picture = shutil.copy(picture, work)
pathlib.Path(work, ".xanylabelingrc").write_text(f'language: en_US\nremote_server_settings: {{server_url: "{url}", api_key: ""}}\n')

# Centres of shapes in the picture.
CIRCLE, STAR, HEART = (150, 140), (400, 150), (400, 420)


def until(what, holds, seconds=60):
    for _ in range(seconds * 20):
        if holds():
            return
        QTest.qWait(50)
    raise AssertionError(f"waited in vain: {what}")


def accept(kind):
    """Presses the default button of the dialog that opens next."""
    def press():
        dialog = widgets.QApplication.activeModalWidget()
        if dialog is None:
            return QTimer.singleShot(100, press)
        print("dialog:", type(dialog).__name__)
        assert type(dialog).__name__ == kind, dialog
        dialog.accept()

    QTimer.singleShot(100, press)


def person():
    window = next(w for w in widgets.QApplication.topLevelWidgets() if type(w).__name__ == "MainWindow")
    # There may be nobody to manage windows.
    window.setGeometry(window.screen().geometry())
    view = window.labeling_widget.view
    until("the picture", lambda: view.canvas.pixmap is not None and not view.canvas.pixmap.isNull())
    view.toggle_auto_labeling_widget()
    auto = view.auto_labeling_widget
    name = next(n for n in auto.model_info if "remote_server" in n)
    accept("RemoteServerDialog")
    auto.on_model_selected("CVHub", name)
    until("the server's model", lambda: auto.edit_text.isVisible() and auto.button_send.isVisible())
    print("model:", auto.remote_server_select_combobox.currentText())
    auto.edit_text.clear()
    QTest.keyClicks(auto.edit_text, "circle, heart")
    QTest.mouseClick(auto.button_send, Qt.MouseButton.LeftButton)
    until("shapes", lambda: len(view.canvas.shapes) >= 2)
    labels = [s.label for s in view.canvas.shapes]
    print("found:", labels)
    inside = lambda label, place: any(s.label == label and s.contains_point(QPointF(*place)) for s in view.canvas.shapes)
    assert inside("circle", CIRCLE) and inside("heart", HEART), labels
    assert not any(s.contains_point(QPointF(*STAR)) for s in view.canvas.shapes)

    window.grab().save(screenshot)

    # The thread that asked has to end before another may.
    QTest.qWait(1500)
    auto.edit_text.clear()
    QTest.mouseClick(auto.button_add_point, Qt.MouseButton.LeftButton)
    # Where the star is in the widget: the canvas draws the picture scaled, about its middle.
    scale, offset = view.canvas.scale, view.canvas.offset_to_center()
    at = QPoint(round((STAR[0] + offset.x()) * scale), round((STAR[1] + offset.y()) * scale))
    QTest.mouseMove(view.canvas, at)
    QTest.mouseClick(view.canvas, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, at)
    until("the star", lambda: any(s.contains_point(QPointF(*STAR)) and s.shape_type == "polygon" for s in view.canvas.shapes))
    print("clicked")


def run():
    try:
        person()
    except BaseException:
        traceback.print_exc()
        widgets.QApplication.primaryScreen().grabWindow(0).save(screenshot)
        os._exit(1)
    print("ok", flush=True)
    os._exit(0)


start = widgets.QApplication.exec
widgets.QApplication.exec = lambda *_: (QTimer.singleShot(1500, run), start())[1]
sys.argv = ["xanylabeling", "--filename", picture, "--work-dir", work, "--no-auto-update-check"]
from anylabeling.app import main  # noqa: E402

main()
