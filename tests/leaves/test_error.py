"""Errors: what they carry, how they read, and that they survive being stored."""

import base64
import copy
import inspect
import json
import pickle
from pathlib import Path

import pytest

from dbos import error
from dbos.error import DBOSErrorCode, PortableWorkflowError, is_workflow_id_in_use_error

DATA = Path(__file__).parent.parent / "data"
SURFACE = json.loads((DATA / "surface-3.4.0.json").read_text())
# Pickles that release 3.4.0 made, to prove that its databases stay readable.
STORED = json.loads((DATA / "pickled-errors-3.4.0.json").read_text())

ATTEMPTS = [ValueError("a"), ValueError("b")]
SAMPLES = {
    "b1": error.DBOSException("m"),
    "b2": error.DBOSException("m", 7),
    "b3": error.DBOSBaseException("m", 3),
    "c1": error.DBOSWorkflowConflictIDError("wf"),
    "c2": error.DBOSRecoveryError("wf"),
    "c2b": error.DBOSRecoveryError("wf", "detail"),
    "c2c": error.DBOSRecoveryError("wf", ""),
    "c3": error.DBOSInitializationError("bad"),
    "c4": error.DBOSWorkflowFunctionNotFoundError("wf"),
    "c4b": error.DBOSWorkflowFunctionNotFoundError("wf", "d"),
    "c5": error.DBOSNonExistentWorkflowError("target", "wf"),
    "c6": error.MaxRecoveryAttemptsExceededError("wf", 3),
    "c6b": error.MaxRecoveryAttemptsExceededError("wf"),
    "c7": error.DBOSMaxStepRetriesExceeded("st", 2, ATTEMPTS),
    "c8": error.DBOSNotAuthorizedError("no"),
    "c9": error.DBOSConflictingWorkflowError("wf"),
    "c9b": error.DBOSConflictingWorkflowError("wf", "d"),
    "c10": error.DBOSWorkflowCancelledError("msg"),
    "c11": error.DBOSUnexpectedStepError("wf", 4, "charge", "charge_card"),
    "c12": error.DBOSQueueDeduplicatedError("wf", "q", "d"),
    "c13": error.DBOSAwaitedWorkflowCancelledError("wf"),
    "c14": error.DBOSAwaitedWorkflowMaxRecoveryAttemptsExceeded("wf"),
    "c15": error.DBOSPatchNondeterminismError("wf", "p", "det"),
    "c16": error.DBOSStreamTimeoutError("wf", "k", 1.5),
    "c16b": error.DBOSStreamTimeoutError("wf", "k"),
    "c17": error.DBOSStreamNondeterminismError("wf", "k"),
    "c18": error.DBOSStepTimeoutError("st", 1.5),
    "c26": error.DBOSQueryTimeoutError(2.0),
    "c27": error.DBOSWorkflowIDInUseError("wf", "PENDING", "fn"),
    "c28": error.DBOSStepNondeterminismError("wf", 3),
    "p1": PortableWorkflowError("m", "n", 3, {"a": 1}),
    "p2": PortableWorkflowError("m", "n"),
}

every_sample = pytest.mark.parametrize("key", SAMPLES)
every_class = pytest.mark.parametrize("name", SURFACE["errors"])


def attributes(problem: BaseException) -> dict:
    """Everything public, with the exceptions among it in a form that compares."""
    values = {key: value for key, value in vars(problem).items() if not key.startswith("_")}
    if "errors" in values:
        values["errors"] = [repr(attempt) for attempt in values["errors"]]
    return values


def test_every_error_class_of_the_published_api_has_a_sample_here():
    sampled = {type(sample).__name__ for sample in SAMPLES.values()} - {"PortableWorkflowError"}
    assert sampled == set(SURFACE["errors"])


@every_class
def test_an_error_class_has_the_published_base_and_constructor(name):
    published = SURFACE["errors"][name]
    cls = getattr(error, name)
    assert cls.__mro__[1].__name__ == published["base"]
    signature = inspect.signature(cls.__init__)
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
        if parameter.name != "self"
    ]
    assert str(inspect.Signature(parameters)) == published["constructor"]["signature"]


@every_sample
def test_an_error_has_the_published_attributes_and_code(key):
    sample = SAMPLES[key]
    if isinstance(sample, PortableWorkflowError):
        assert set(attributes(sample)) == {"message", "name", "code", "data"}
        return
    published = SURFACE["errors"][type(sample).__name__]
    assert sorted(attributes(sample)) == published["attributes"]
    if published["code"] is not None:
        assert sample.dbos_error_code == published["code"]
        assert type(sample.dbos_error_code) is int


def test_the_error_codes_are_the_published_ones():
    assert {member.name: member.value for member in DBOSErrorCode} == SURFACE["enums"]["error.DBOSErrorCode"]


def test_the_text_names_the_code_where_there_is_one():
    assert str(error.DBOSException("m")) == "DBOS Error: m"
    assert str(error.DBOSException("m", 7)) == "DBOS Error 7: m"
    assert str(error.DBOSBaseException("m", 3)) == "DBOS Error 3: m"


def test_losing_and_cancelling_an_execution_cannot_be_swallowed_by_except_exception():
    for cls in (error.DBOSWorkflowConflictIDError, error.DBOSWorkflowCancelledError):
        assert not issubclass(cls, Exception)


@every_sample
def test_an_error_survives_pickling_with_its_text_and_attributes(key):
    sample = SAMPLES[key]
    restored = pickle.loads(pickle.dumps(sample))
    assert type(restored) is type(sample)
    assert str(restored) == str(sample)
    assert restored.args == sample.args
    assert attributes(restored) == attributes(sample)


@every_sample
def test_an_error_stored_by_release_3_4_0_is_read_as_our_class(key):
    restored = pickle.loads(base64.b64decode(STORED[key]))
    assert type(restored) is type(SAMPLES[key])
    expected = attributes(SAMPLES[key])
    if key == "c1":  # carries its finished text, and the texts differ
        expected["message"] = "Workflow wf is no longer owned by this execution"
    assert attributes(restored) == expected
    assert expected["message"] in str(restored)


@pytest.mark.parametrize("key", [key for key in SAMPLES if key not in ("c1", "p2")])
def test_an_error_is_stored_byte_for_byte_as_release_3_4_0_stores_it(key):
    """04 R622."""
    assert base64.b64encode(pickle.dumps(SAMPLES[key], protocol=4)).decode() == STORED[key]


def test_a_portable_error_built_with_keywords_survives_pickling():
    """04 R615, R622, section 11, 24."""
    sample = PortableWorkflowError(message="m", name="n", data=[1])
    restored = pickle.loads(pickle.dumps(sample))
    assert attributes(restored) == {"message": "m", "name": "n", "code": None, "data": [1]}


def test_a_portable_error_reads_as_its_message_and_compares_by_identity():
    """04 R615."""
    sample = PortableWorkflowError("m", "n", 3)
    assert str(sample) == "m"
    assert sample != PortableWorkflowError("m", "n", 3)
    assert len({sample, PortableWorkflowError("m", "n", 3)}) == 2
    assert repr(sample) == "PortableWorkflowError(message='m', name='n', code=3, data=None)"


def test_a_copied_conflict_keeps_one_message():
    sample = error.DBOSWorkflowConflictIDError("wf")
    assert copy.copy(sample).args == sample.args
    assert str(copy.copy(sample)).count("Workflow") == 1


def test_a_subclass_that_users_derive_from_the_root_keeps_their_attributes():
    restored = pickle.loads(pickle.dumps(CardDeclined("no funds")))
    assert (type(restored), restored.message, restored.retry) == (CardDeclined, "no funds", True)


class CardDeclined(error.DBOSException):
    def __init__(self, message):
        super().__init__(message, 900)
        self.retry = True


def test_an_unexpected_step_names_workflow_position_both_names_and_the_two_remedies():
    problem = error.DBOSUnexpectedStepError("wf-7", 4, "charge", "charge_card")
    assert problem.inputs == ("wf-7", 4, "charge", "charge_card")
    for part in (
        "wf-7",
        "step 4",
        '"charge_card"',
        '"charge"',
        "same order",
        "DBOS.patch(",
        "application version",
    ):
        assert part in str(problem)


def test_an_unexpected_step_where_a_patch_was_recorded_points_to_deprecate_patch():
    problem = error.DBOSUnexpectedStepError("wf-7", 4, "charge", "DBOS.patch-new-charge")
    assert 'DBOS.deprecate_patch("new-charge")' in str(problem)


def test_exhausted_retries_quote_the_last_attempt():
    assert "ValueError: b" in str(error.DBOSMaxStepRetriesExceeded("st", 2, ATTEMPTS))


def test_exhausted_retries_can_be_built_from_an_attempt_without_a_text():
    class Unprintable(Exception):
        def __str__(self):
            raise RuntimeError

    assert "Unprintable" in str(error.DBOSMaxStepRetriesExceeded("st", 1, [Unprintable()]))
    assert error.DBOSMaxStepRetriesExceeded("st", 0, []).errors == []


def test_a_missing_destination_has_the_published_text():
    problem = error.DBOSNonExistentWorkflowError("`send` destination", "X")
    assert problem.message == "Non-existent `send` destination workflow ID: X"


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (SAMPLES["c27"], True),
        (PortableWorkflowError("m", "DBOSWorkflowIDInUseError"), True),
        (error.DBOSException("m", 27), True),
        (PortableWorkflowError("m", "Other", 27), False),
        (error.DBOSException("m", 1), False),
        (ValueError("27"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_an_id_in_use_is_recognised_also_in_its_portable_form(problem, expected):
    assert is_workflow_id_in_use_error(problem) is expected


def test_the_persisted_module_path_offers_the_same_classes():
    from dbos import _error

    for name in SURFACE["errors"]:
        assert getattr(_error, name) is getattr(error, name)
        assert getattr(error, name).__module__ == "dbos._error"
