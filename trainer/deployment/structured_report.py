"""Writes predictions as DICOM structured reports, which archives and viewers of hospitals read.

One report for each DICOM image: a measurement report (DICOM PS3.16, TID 1500) in the image's study,
with the probability of each class and the class of the largest. Its text and its attributes say
that it is for research.
"""

from __future__ import annotations

import datetime
import io
import logging
import os
import uuid
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import pydicom
from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from cxr_tfrecords import __version__, csv_rows, files
from cxr_tfrecords.console.progress import each
from cxr_tfrecords.decoding.dicom import is_dicom
from cxr_tfrecords.images import BadImageError
from trainer.deployment.image_sources import read_file
from trainer.deployment.predictor import Classifier

RESEARCH = "For research, not for clinical use. This is not a medical device."
_NAME = "cxr-balance"
_SCHEME = "99CXRBALANCE"  # private, as the 99 says (DICOM PS3.3, section 8.2)
# Classes whose meaning is a concept of SNOMED CT beyond doubt, by their letters and digits.
_SNOMED = {
    "covid": ("840539006", "COVID-19"),
    "covid19": ("840539006", "COVID-19"),
    "normal": ("17621005", "Normal"),
    "pneumonia": ("233604007", "Pneumonia"),
    "viralpneumonia": ("75570004", "Viral pneumonia"),
}
# Attributes that a report takes from its image, and that may be missing there (type 2).
_TAKEN_OVER = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime"),
)
_IDENTIFIERS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
_MOST_REASONS = 5  # that are shown; a folder of damaged files may have one for each


def write_reports(
    rows_path: str, source: str, folder: str, classifiers: Sequence[Classifier]
) -> str:
    """Writes a report for each row of a file of predictions whose image is a DICOM file.

    A report's name is its identifier, which is a function of the image's, the models and their
    answer. So writing again gives the same files, byte for byte.

    Args:
      rows_path: CSV file with the columns `id`, `class` and `calibrated_CLASS`.
      source: folder that ids are relative to.
      folder: where reports are written; made if it is not there.
      classifiers: the models that gave these answers.

    Returns:
      How many were written and why others were not, in words.
    """
    models = [one.model_hash for one in classifiers]
    os.makedirs(folder, exist_ok=True)
    # Both say a line or more for each file, or for each unusual value of a header.
    logging.getLogger("highdicom").setLevel(logging.WARNING)
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="pydicom")
    without: dict[str, list[str]] = {}  # reason -> ids
    with csv_rows.open_csv(rows_path) as file:
        rows = list(csv_rows.dict_reader(file))
    for row in each(rows, "structured reports", ""):
        probabilities = {c: float(row[f"calibrated_{c}"]) for c in classifiers[0].class_names}
        try:
            image = _read_header(os.path.join(source, row["id"]))
            report = create_report(image, row["class"], probabilities, models)
        except BadImageError as error:
            without.setdefault(str(error), []).append(row["id"])
            continue
        except (AttributeError, TypeError, ValueError) as error:  # a header that breaks the rules
            reason = f"the header breaks DICOM's rules ({error})"
            without.setdefault(reason, []).append(row["id"])
            continue
        path = os.path.join(folder, f"{report.SOPInstanceUID}.dcm")
        with files.replacing(path) as temporary:
            report.save_as(temporary, enforce_file_format=True)
    return _describe(len(rows) - sum(map(len, without.values())), folder, without)


def _describe(written: int, folder: str, without: Mapping[str, Sequence[str]]) -> str:
    """What was written, and each reason why an image has no report, the commonest first."""
    lines = [f"{written:,} structured report{'s' * (written != 1)} in {folder}"]
    reasons = sorted(without.items(), key=lambda item: -len(item[1]))
    for reason, ids in reasons[:_MOST_REASONS]:
        example = ids[0].encode(errors="backslashreplace").decode()
        images = f"{len(ids):,} images got none" if len(ids) > 1 else "1 image got none"
        lines.append(f"{images}: {reason}; {'the first' if len(ids) > 1 else 'it'} is {example}")
    if rest := [ids for _, ids in reasons[_MOST_REASONS:]]:
        lines.append(f"{sum(map(len, rest)):,} others got none, for {len(rest):,} other reasons")
    return "\n".join(lines)


def create_report(
    image: Dataset, predicted: str, probabilities: Mapping[str, float], models: Sequence[str]
) -> sr.ComprehensiveSR:
    """The structured report on one image.

    Args:
      image: the image's header, with the identifiers of instance, series and study.
      predicted: the class of the largest raw probability.
      probabilities: class name -> calibrated probability.
      models: SHA-256 of each model's file.

    Raises:
      BadImageError: the header lacks an identifier.
      AttributeError, TypeError, ValueError: a value in it breaks DICOM's rules.
    """
    if absent := [name for name in _IDENTIFIERS if not image.get(name)]:
        raise BadImageError(f"the header has no {', '.join(absent)}")
    for name in _TAKEN_OVER:
        if name not in image:
            setattr(image, name, "")
    answer = [f"{name}={value!r}" for name, value in probabilities.items()]
    model_uid = _uid(*models)
    uid = _uid(image.SOPInstanceUID, *models, __version__, predicted, *answer)
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(_uid(uid, "group"), "whole image"),
        algorithm_id=sr.AlgorithmIdentification(
            name=_NAME,
            version=__version__,
            parameters=[f"SHA-256 of the model: {model}" for model in models],
        ),
        source_images=[sr.SourceImageForMeasurementGroup(image.SOPClassUID, image.SOPInstanceUID)],
        measurements=[
            sr.Measurement(_private(f"Probability of {name}"), value, codes.UCUM.NoUnits)
            for name, value in probabilities.items()
        ],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(_private("Class of the largest probability"), _code(predicted))
        ],
    )
    device = sr.DeviceObserverIdentifyingAttributes(model_uid, _NAME, manufacturer_name=_NAME)
    content = sr.MeasurementReport(
        sr.ObservationContext(observer_device_context=sr.ObserverContext(codes.DCM.Device, device)),
        procedure_reported=sr.CodedConcept("399208008", "SCT", "Plain X-ray of chest"),
        imaging_measurements=[group],
    )
    content[0].ContentSequence.append(
        sr.TextContentItem(
            codes.DCM.Comment,
            f"{RESEARCH} Probabilities are those of a statistical model, calibrated on its "
            "validation images; the class is that of its largest uncorrected probability.",
            sr.RelationshipTypeValues.CONTAINS,
        )
    )
    day, time = _when(image)
    report = sr.ComprehensiveSR(
        [image],
        content,
        series_instance_uid=_uid(image.StudyInstanceUID, *models),
        series_number=1,
        sop_instance_uid=uid,
        instance_number=1,
        manufacturer=_NAME,
        is_complete=True,
        series_description=f"{_NAME}: for research, not for clinical use",
        software_versions=__version__,
        content_qualification="RESEARCH",
        content_date=day,
        content_time=time,
    )
    # Optional, and the moment of this call. highdicom's own item is the last one; one before it is
    # of the device that made the image, with the time of that, if the header has it.
    del report.InstanceCreationDate, report.InstanceCreationTime
    del report.ContributingEquipmentSequence[-1].ContributionDateTime
    return report


def _read_header(path: str) -> Dataset:
    """A DICOM file's header, without pixels.

    Raises:
      BadImageError: it cannot be read, or is another kind of file.
    """
    data = read_file(path)
    if not is_dicom(data):
        raise BadImageError("not a DICOM file")
    if data[:4] == b"DICM":
        data = bytes(128) + data
    return pydicom.dcmread(io.BytesIO(data), force=True, stop_before_pixels=True)


def _uid(*parts: str) -> str:
    """A DICOM identifier of its own for these texts (PS3.5, section B.2)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, chr(0).join([_NAME, *parts])).int}"


def _private(meaning: str) -> sr.CodedConcept:
    """A code of this project: at most 16 characters, the same for the same meaning."""
    return sr.CodedConcept(uuid.uuid5(uuid.NAMESPACE_OID, meaning).hex[:16], _SCHEME, meaning[:64])


def _code(class_name: str) -> sr.CodedConcept:
    known = _SNOMED.get("".join(filter(str.isalnum, class_name.lower())))
    return sr.CodedConcept(known[0], "SCT", known[1]) if known else _private(class_name)


def _when(image: Dataset) -> tuple[datetime.date, datetime.time]:
    """The image's date and time: with those of the call, one identifier would have two contents."""
    for kind in ("Content", "Acquisition", "Series", "Study"):
        day = image.get(f"{kind}Date")
        if day:
            time: Any = image.get(f"{kind}Time") or "000000"
            return pydicom.valuerep.DA(str(day)), pydicom.valuerep.TM(str(time))
    return datetime.date(1970, 1, 1), datetime.time()
