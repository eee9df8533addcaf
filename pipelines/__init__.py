"""The work of `tf_mwnet` as typed, cached, restartable components on Kubeflow Pipelines.

    ExampleGen -> StatisticsGen -> SchemaGen -> ExampleValidator -> BiasGen -> (Tuner) -> Trainer
               -> Evaluator, LabelAudit, InfraValidator -> Pusher

* `components` declares them; `tasks` does what they stand for, by calls into `tf_mwnet`.
* `graph` puts them together; ``python -m pipelines.run`` runs that here, ``pipelines.compile`` writes it
  down for a cluster.
* `store` keeps what was made from what; ``python -m pipelines.lineage`` prints it.
"""
